"""The tabs next to the prompt, a file each."""
