"""Foreign formats, one file each: `<name>.py` here has `export_model`, `import_model` and `verify_model`."""
