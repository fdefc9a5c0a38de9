"""`make test-compat`: one student, opened by others than transformers 5, must write the same text there.

It fetches packages, so it is no part of `make test`, which looks at the files' structure only.
"""
