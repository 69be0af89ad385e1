"""Values → codes: ids by vocabulary, numbers by quantile, times by rule; counted in parts that join."""
