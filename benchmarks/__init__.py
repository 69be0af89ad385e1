"""The one way to measure: `python -m benchmarks NAME --json FILE`."""
