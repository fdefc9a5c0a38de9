"""What `make docs` runs beside the generator: tables out of the code, equations, and a check of the built pages."""
