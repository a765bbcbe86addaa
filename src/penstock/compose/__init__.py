"""The only place where parts are wired together: one function a process. Commands call these and nothing else.

Imports of other rooms stand inside the functions, so that a process loads what it runs and no more.
"""
