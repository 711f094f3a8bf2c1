"""Region encoders: how a model is told which places of a picture are meant.

Each is two halves. A preparer works beside the backbone's preprocessor, on the CPU: it says regions in words, draws
them, or keeps tokens free for them. An encoder works beside the backbone: it fills those tokens.
"""
