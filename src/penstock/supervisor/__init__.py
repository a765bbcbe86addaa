"""Keeps the processes of one machine running: starts, adopts, restarts and drains them, and can itself be killed."""
