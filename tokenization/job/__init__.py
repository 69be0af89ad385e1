"""The whole way of a log, however large: in memory, in parts on disk, on a cluster, a day at a time."""
