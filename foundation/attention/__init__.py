"""Sparse attention over packed event streams.

`sight` says what each token sees, as ranges; `memory` compresses what lies before the window; `rotary` turns queries
and keys by place and time; `backends` computes it in one of several ways that agree with the plainest, `reference`.
"""
