from torchvision._inert import names

globals().update(names('create_feature_extractor', 'get_graph_node_names'))
