"""The endpoints of /api/v1 and /internal/v1, a file for each group of resources."""
