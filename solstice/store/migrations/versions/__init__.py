"""The revisions, `rNNNN_*`, each from the one before.  None can be undone: a backup is the way back."""
