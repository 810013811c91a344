"""The `fleet` command: operators drive the fleet over REST; `up` and `demo` run a local stack."""
