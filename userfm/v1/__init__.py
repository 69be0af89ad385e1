"""Generated from `protos/userfm/v1` by `make protos`; nothing here is written by hand."""
