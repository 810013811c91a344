"""`python -m cloud.store.migrations "what changes"` drafts the next revision from the tables."""

import sys

from cloud.store.migrations import draft

draft(sys.argv[1])
