package apiserver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// aggregatedDiscovery is the media type of the one document that lists every resource.
const aggregatedDiscovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// serveGroups serves the list of groups at /apis. The CRD server leaves it to
// an aggregator, which we have none of. Clients that ask for aggregated
// discovery get it; for the others the plain list is made from the same source,
// so that groups of custom resources are in both.
func serveGroups(s *genericapiserver.GenericAPIServer) {
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list, err := groupList(s.AggregatedDiscoveryGroupManager, r)
		if err != nil {
			responsewriters.ErrorNegotiated(err, coreCodecs, schema.GroupVersion{}, w, r)
			return
		}
		responsewriters.WriteObjectNegotiated(coreCodecs, negotiation.DefaultEndpointRestrictions, schema.GroupVersion{}, w, r, http.StatusOK, list, false)
	})
	handler := aggregated.WrapAggregatedDiscoveryToHandler(plain, s.AggregatedDiscoveryGroupManager, nil)
	s.Handler.NonGoRestfulMux.Unregister("/apis")
	s.Handler.NonGoRestfulMux.Handle("/apis", handler)
}

func groupList(source http.Handler, r *http.Request) (*metav1.APIGroupList, error) {
	ask := r.Clone(r.Context())
	ask.Header = http.Header{"Accept": {aggregatedDiscovery}}
	answer := httptest.NewRecorder()
	source.ServeHTTP(answer, ask)
	var groups apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(answer.Body.Bytes(), &groups); err != nil {
		return nil, err
	}
	list := &metav1.APIGroupList{Groups: []metav1.APIGroup{}}
	for _, g := range groups.Items {
		group := metav1.APIGroup{Name: g.Name}
		for _, v := range g.Versions {
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.Name + "/" + v.Version, Version: v.Version})
		}
		if len(group.Versions) > 0 {
			group.PreferredVersion = group.Versions[0]
			list.Groups = append(list.Groups, group)
		}
	}
	return list, nil
}
