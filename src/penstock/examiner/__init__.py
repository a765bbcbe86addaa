"""The examiner: a process that asks versions what suites ask, on the real engine, away from users' traffic."""
