"""Results for people: tables, HTML page, pictures."""
