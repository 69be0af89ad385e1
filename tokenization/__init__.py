"""Raw event logs in, tokens out: schema, sources, vocabularies, facets, merging, item content, the corpus."""
