"""Planning: what a recipe would do, how large it is and how long it takes, before anything runs."""
