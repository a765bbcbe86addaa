"""Pipelines: from files to production, step by step, by the loop of control's leader."""
