"""Raw event logs in, tokens out. The way of the data:

schema → sources → events → codes, merging, items → tokenizer → corpus; job takes a log the whole way.
"""
