"""What the operating system offers: files, channels, subprocesses.  Layer 3; nothing here knows of jobs."""
