"""What a device needs before bundles run there: found out (`preflight`), got on this host (`wheels`), put there."""
