"""A model as other programs open it: the library's own files alone, with its processor, and nothing of ours."""
