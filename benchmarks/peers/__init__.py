"""Other systems, each in an environment of its own, since they need other versions of what this project needs."""
