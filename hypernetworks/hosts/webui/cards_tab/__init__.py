"""The tab "Hypernetworks" with its cards, on the page of each webui."""
