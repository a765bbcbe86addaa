"""What is wrong with a running installation, and why: pure rules over what was seen of it."""
