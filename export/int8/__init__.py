"""The steps that turn a network's layers into int8."""
