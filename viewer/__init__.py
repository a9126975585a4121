"""The viewer: a page in the browser that shows and steers training runs, and shows finished scenes."""
