"""Who may call what and how much: principals, roles, model permissions, limits (pure)."""
