"""Search an index with a model: by the searcher alone, or on a page in the browser."""
