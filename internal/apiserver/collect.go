package apiserver

import "context"

type collector struct{ ctx context.Context }

func newCollector(s *Server) *collector { return &collector{s.ctx} }
func (c *collector) run()               {}
