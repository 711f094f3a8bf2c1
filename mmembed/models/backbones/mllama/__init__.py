"""The Llama-3.2-Vision family."""
