"""Gates: what a version has to show before it runs in an environment, and the evaluations that show it."""
