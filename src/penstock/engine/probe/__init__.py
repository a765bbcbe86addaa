"""Looks at models off line: a few requests through the same weights again, in numpy, with everything that serving does not show."""
