"""What every device reached through a shell of its own has in common: ssh and adb differ in their client alone."""
