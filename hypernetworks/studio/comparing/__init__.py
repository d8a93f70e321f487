"""One prompt, many settings: a sheet of images over up to three axes."""
