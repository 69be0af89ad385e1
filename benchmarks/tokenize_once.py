"""`python -m benchmarks.tokenize_once SCHEMA EVENTS OUT`: one tokenization in a process of its own.

Prints one line of JSON: seconds, and rss_gib, the most memory that the process held at any time, pages of mapped files
included.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tokenization.job.pipeline import tokenize


def main(schema: str, events: str, out: str) -> None:
    """Tokenize and say what it took."""
    corpus = tokenize(schema, events, None, out)
    # Not `ru_maxrss`, which begins with that of the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    print(json.dumps({"seconds": corpus.summary["seconds"], "rss_gib": int(found[1]) / 2**20}))


if __name__ == "__main__":
    main(*sys.argv[1:])
