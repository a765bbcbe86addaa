"""The pages, one a file: what each reads of the API, and what its forms do."""
