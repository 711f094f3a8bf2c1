"""Tables and retrieval sets out of a folder of pictures and a CSV."""
