"""Files that appear whole, locks, arrays on disk and the folders they are in. Knows no network, data or study."""
