"""The cloud's durable state, on SQLite or PostgreSQL: tables, migrations, one file per noun."""
