"""Image files: the size that a header tells, and decoding that asks for it first."""
