"""Tests of distillation; a package, so that its conftest and the one above have names of their own."""
