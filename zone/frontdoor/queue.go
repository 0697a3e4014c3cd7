package frontdoor

import "container/list"

// queue holds pending connections in order of arrival. The zero queue is empty.
type queue struct{ list list.List }

func (q *queue) push(c *conn) int {
	c.place = q.list.PushBack(c)
	return q.list.Len()
}

func (q *queue) pop() *conn {
	c := q.list.Remove(q.list.Front()).(*conn)
	c.place = nil
	return c
}

func (q *queue) remove(c *conn) {
	if c.place != nil {
		q.list.Remove(c.place)
		c.place = nil
	}
}
