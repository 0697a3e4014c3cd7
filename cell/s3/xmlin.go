package s3

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
)

// maxXMLDepth bounds the nesting of a request's XML; S3's deepest here is 4.
const maxXMLDepth = 16

// node is an element of a request's XML: the documents are small and flat, and
// one strict reader for all of them is easier to trust than a struct for each.
type node struct {
	name string
	text string
	kids []*node
}

// parseXML reads a document whose root element is named root. Namespaces are not
// looked at, as with S3; document types, entities and anything after the root are refused.
func parseXML(doc []byte, root string) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	d.Strict = true
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, fail("MalformedXML") }
	var stack []*node
	var top *node
	for {
		t, err := d.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fail("MalformedXML").because(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			n := &node{name: t.Name.Local}
			if len(stack) == 0 {
				if top != nil || n.name != root {
					return nil, fail("MalformedXML")
				}
				top = n
			} else {
				p := stack[len(stack)-1]
				p.kids = append(p.kids, n)
			}
			if stack = append(stack, n); len(stack) > maxXMLDepth {
				return nil, fail("MalformedXML")
			}
		case xml.EndElement:
			if len(stack) == 0 || stack[len(stack)-1].name != t.Name.Local {
				return nil, fail("MalformedXML")
			}
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) == 0 {
				if strings.TrimSpace(string(t)) != "" {
					return nil, fail("MalformedXML")
				}
				continue
			}
			stack[len(stack)-1].text += string(t)
		case xml.Directive:
			return nil, fail("MalformedXML")
		case xml.Comment, xml.ProcInst:
		}
	}
	if top == nil || len(stack) > 0 {
		return nil, fail("MalformedXML")
	}
	return top, nil
}

// leaf returns the text of an element that must have no children.
func (n *node) leaf() (string, error) {
	if len(n.kids) > 0 {
		return "", fail("MalformedXML")
	}
	return n.text, nil
}

// child returns the text of the first child of that name, trimmed.
func (n *node) child(name string) string {
	for _, k := range n.kids {
		if k.name == name {
			return strings.TrimSpace(k.text)
		}
	}
	return ""
}
