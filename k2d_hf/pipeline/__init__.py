"""The whole method from a recipe: its stages, the run, the plan, and the commands."""
