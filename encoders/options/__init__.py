"""What each kind of encoder may be told: sections of the settings. Nothing large is imported here."""
