"""The host's side of an agent: requests and answers, and the files that cross to the device."""
