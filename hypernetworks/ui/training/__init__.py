"""What the Train tabs of the webuis and of the studio share: fields, folders, runs, and curves."""
