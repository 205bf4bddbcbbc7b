"""Labels of samples and cells, of every model: targets, heads, fitting and prediction."""
